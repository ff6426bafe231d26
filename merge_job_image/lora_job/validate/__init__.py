"""Validation of a merged model: is it base + adapter, good enough, safe enough, as fast as its base, and how sure are we?

Pure parts (statistics, score, gates, recommendations, numeric metric, safety rules) decide; `loading`, `harness`,
`performance` and `pipeline` act. Nothing here changes a model.
"""
