"""What did it die of: findings with certainty and evidence."""
