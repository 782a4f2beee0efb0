"""What is installed elsewhere: locks, wheel and sdist, the container, a fresh machine."""
