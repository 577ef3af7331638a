"""
Sockets and time: the epoll port and its connections, the monotonic clock, processors, client certificates, time-outs.
"""
