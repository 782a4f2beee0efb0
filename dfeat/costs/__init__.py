"""What a run takes: operations, bytes and hours of each step, estimated before anything is computed."""
