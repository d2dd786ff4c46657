"""The AWS CLI as it comes from PyPI, with strict_json.py reading every reply along: a bad one ends the command with status 255.

    python aws_strict.py ecs list-clusters --endpoint-url http://127.0.0.1:8099
"""

import sys

from awscli.clidriver import create_clidriver

import strict_json

driver = create_clidriver()
strict_json.attach(driver.session)
sys.exit(driver.main(sys.argv[1:]))
