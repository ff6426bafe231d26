"""How quickly `loractl` answers."""
