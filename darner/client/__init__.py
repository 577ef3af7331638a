"""
Clients of the server: one protocol without I/O, and front ends for asyncio, Twisted and programs that block.

`darner.client.asyncio`, `darner.client.twisted` and `darner.client.blocking` have the same names with the same meaning.
`darner.client.protocol` is what they share: bytes in, events out.  The first and the last
import neither Twisted nor plyvel.
"""
