"""
What an operator sets: settings, settings by queue, units of size and time, the password file.
"""
