"""The hardware that moto does not have: a link for every ENI that is attached to the instance, gone when it is detached.

usage: hardware.py ENDPOINT INSTANCE    (in the instance's network namespace, credentials in the environment)
"""

import subprocess
import sys
import time

import boto3

endpoint, instance = sys.argv[1:]
ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name="us-east-1")
plugged = {}


def ip(*args):
    return subprocess.run(["ip", *args], capture_output=True, text=True)


while True:
    enis = ec2.describe_network_interfaces(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])
    seen = {
        eni["NetworkInterfaceId"]: eni["MacAddress"]
        for eni in enis["NetworkInterfaces"]
        if eni["Attachment"].get("DeviceIndex", 0) > 0
    }
    for eni in [eni for eni in seen if eni not in plugged]:
        name = "m" + eni[-8:]
        ip("link", "add", name, "type", "veth", "peer", "name", "p" + eni[-8:])
        ip("link", "set", "p" + eni[-8:], "up")
        ip("link", "set", name, "address", seen[eni])
        plugged[eni] = "p" + eni[-8:]
    for eni in [eni for eni in plugged if eni not in seen]:
        ip("link", "del", plugged.pop(eni))
    time.sleep(0.3)
