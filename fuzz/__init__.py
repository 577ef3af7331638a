"""
Fuzzing: checks that hold for any bytes that a client or server may send, and the fuzzer that generates the inputs.

Each target is a module with a function ``check(data)``, which raises if a promise is broken.  It needs nothing but
darner, so that the ordinary tests can run it with all seeds and with random inputs.  ``python -m fuzz TARGET`` has
atheris generate the inputs, guided by the code in darner that they reach.

``wire``
    Request lines, by themselves.
``protocol``
    Clients over memory transports that send known commands, so that a reference has the right replies.
``stream``
    Clients that send any bytes.
``client``
    Bytes that servers send to clients (`darner.client.protocol`), also those that darner sends.
``files``
    Queue names that look like paths, over a store on disk.
"""
