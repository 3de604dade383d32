"""The launched dry run: the real engine on real ranks, through the ``deepspeed`` launcher."""
