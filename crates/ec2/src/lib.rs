//! EC2 and IMDS behind the ENI manager's cloud port; the only crate that compiles aws-sdk-ec2.
