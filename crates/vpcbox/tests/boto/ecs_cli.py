"""A stranger with the AWS CLI from PyPI: registers a definition, runs a task, waits until it runs, stops it, waits until it has
stopped. aws_strict.py reads every reply along; ecs_agent.py plays the agent inside an instance.

Arguments: the status of the box as JSON, the vpcbox program.
"""

import json
import os
import subprocess
import sys
import time

box = json.load(open(sys.argv[1]))
here = os.path.dirname(os.path.abspath(__file__))
subnet = next(s["id"] for s in box["subnets"] if s["name"] == "a")
environment = os.environ | {
    "AWS_ACCESS_KEY_ID": "AKIDVPCBOXTEST", "AWS_SECRET_ACCESS_KEY": "a-secret/with+signs=",
    "AWS_DEFAULT_REGION": box["region"], "AWS_ENDPOINT_URL": box["endpoint"], "AWS_PAGER": "",
}


def aws(*words):
    command = [sys.executable, "-B", os.path.join(here, "aws_strict.py"), "ecs", *words, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"aws ecs {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else None


containers = json.dumps([{"name": "app", "image": "x:1", "memory": 64}])
aws("register-task-definition", "--family", "web", "--network-mode", "awsvpc", "--container-definitions", containers)
command = [sys.argv[2], "exec", "--name", box["name"], "one", "--", sys.executable, "-B", os.path.join(here, "ecs_agent.py")]
agent = subprocess.Popen([*command, f"http://127.0.0.1:{box['port']}", "demo"])
try:
    deadline = time.monotonic() + 60
    while not (found := aws("list-container-instances", "--cluster", "demo")["containerInstanceArns"]):
        assert time.monotonic() < deadline, "the agent did not register"
    ran = aws(
        "run-task", "--cluster", "demo", "--task-definition", "web", "--network-configuration",
        f"awsvpcConfiguration={{subnets=[{subnet}]}}")
    arn = ran["tasks"][0]["taskArn"]
    aws("wait", "tasks-running", "--cluster", "demo", "--tasks", arn)
    aws("stop-task", "--cluster", "demo", "--task", arn, "--reason", "seen enough")
    aws("wait", "tasks-stopped", "--cluster", "demo", "--tasks", arn)
    shown, = aws("describe-tasks", "--cluster", "demo", "--tasks", arn)["tasks"]
    assert (shown["lastStatus"], shown["stoppedReason"]) == ("STOPPED", "seen enough"), shown
    aws("deregister-container-instance", "--cluster", "demo", "--container-instance", found[0])
    assert agent.wait(60) == 0
finally:
    agent.kill()
print("a task ran and was stopped")
