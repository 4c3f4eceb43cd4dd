"""boto3 and the AWS CLI against the server."""
