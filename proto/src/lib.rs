//! gRPC messages and services of rackferry.v1.
