"""What each speed claim is measured with: every figure beside its peer or limit, measured in the same run."""
