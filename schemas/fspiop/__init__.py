"""What stands on the FSPIOP wire: which headers and bodies are well formed, and how an error reads. Pure: no IO, no clock.

    headers     the headers of a request, checked in FSPIOP's order
    bodies      the bodies that FSPs send, for bulks and for single transfers, checked in one pass
    types       the bodies and their parts, with every constraint
    datetimes   FSPIOP's DateTime and HTTP's Date, to and from milliseconds since 1970
    currencies  the codes that a Money may name
    results     the bodies that the hub writes itself
    keys        public keys of FSPs, from PEM, certificates and JWKs
    signatures  FSPIOP-Signature: checked against its request, made for what the hub says
    ilp_packets the transaction object inside an ilpPacket
    errors      errorInformation, and the refusal that the two checks raise

The only thing a check does about a fault is to raise `errors.Refusal`; who answers it is the edge's business.
"""
