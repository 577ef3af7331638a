"""
The program ``darner``: everything that a person or a script does with servers, one module for each kind of command.
"""
