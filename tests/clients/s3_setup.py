"""A user who may do everything in S3, a bucket, and objects in it; prints the user's key.

python s3_setup.py ENDPOINT CA_FILE REGION BUCKET FILE...
"""

import json
import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import EndpointConnectionError

endpoint, ca_file, region, bucket, *files = sys.argv[1:]


def client(service, key_id, secret):
    return boto3.client(
        service, endpoint_url=endpoint, verify=ca_file, region_name=region,
        aws_access_key_id=key_id, aws_secret_access_key=secret,
    )  # fmt: skip


iam = client("iam", "nobody", "nothing")
for _ in range(600):
    try:
        iam.create_user(UserName="auricle")
        break
    except EndpointConnectionError:
        time.sleep(0.1)
key = iam.create_access_key(UserName="auricle")["AccessKey"]
allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
policy = {"Version": "2012-10-17", "Statement": [allowed]}
iam.put_user_policy(UserName="auricle", PolicyName="all", PolicyDocument=json.dumps(policy))
s3 = client("s3", key["AccessKeyId"], key["SecretAccessKey"])
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
for path in map(Path, files):
    s3.put_object(Bucket=bucket, Key=f"in/{path.name}", Body=path.read_bytes())
print(json.dumps([key["AccessKeyId"], key["SecretAccessKey"]]))
