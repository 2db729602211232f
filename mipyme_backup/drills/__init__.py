"""What runs in the process of a drill: the project on throwaway data, and what it must do there.

`python -m mipyme_backup.drills JOB` sets the project up with its databases and its files
replaced, takes the steps one by one, and tells of each on stdout. What is live is never named
in that process, so nothing that the project does there can change it.
"""
