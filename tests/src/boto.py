"""boto3 behind a pipe: a line of JSON comes in (`[service, operation, arguments]`), a line comes back (`{"ok": ...}` or `{"error": ...}`).

The AWS CLI takes most of a second for each call; a test that makes hundreds of them has one of these instead.
"""

import json
import sys

import boto3
from botocore.config import Config

endpoint, region, key, secret = sys.argv[1:]
config = Config(retries={"max_attempts": 8, "mode": "standard"}, connect_timeout=5, read_timeout=10)
clients = {
    name: boto3.client(
        name,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )
    for name in ("ecs", "ec2")
}

for line in sys.stdin:
    service, operation, arguments = json.loads(line)
    try:
        answer = getattr(clients[service], operation)(**arguments)
        answer.pop("ResponseMetadata", None)
        reply = {"ok": answer}
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply, default=lambda moment: moment.timestamp()), flush=True)
