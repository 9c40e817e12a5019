"""fp32, fp16 and int8 of one model, each a graph of its own."""
