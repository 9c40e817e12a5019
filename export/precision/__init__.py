"""fp32, fp16 and int8 of one model, each in a separate graph."""
