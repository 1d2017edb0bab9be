"""How fast compiled networks are: workloads with goals, against dense engines and the frameworks, in one process and on one thread.

Every case says whether its answers are right before it says how long they took, and losses are told like wins.
`running.run` measures; `command` is the command line's.
"""
