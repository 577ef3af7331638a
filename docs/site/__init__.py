"""
What makes the site of the documents: extensions for Sphinx, and a check of the links in what was built.
"""
