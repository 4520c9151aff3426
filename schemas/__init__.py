"""The contracts: what stands on a topic (`avro/`, `messages`, `codec`, `topics`) and what stands on the wire (`fspiop/`)."""
