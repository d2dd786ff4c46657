"""Runs inside an instance's namespace with no configuration but the endpoint: boto3 finds its credentials in IMDS by itself."""

import os
import sys

import boto3
from botocore.utils import InstanceMetadataRegionFetcher

for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
    os.environ.pop(key, None)
session = boto3.Session(region_name="us-west-2")
credentials = session.get_credentials()
assert credentials.method == "iam-role", credentials.method
region = InstanceMetadataRegionFetcher().retrieve_region()
assert region == "us-west-2", region
ec2 = session.client("ec2", endpoint_url=sys.argv[1])
print(len(ec2.describe_instances()["Reservations"]))
