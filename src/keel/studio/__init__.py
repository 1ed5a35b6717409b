"""The studio: what raters and leads see in a browser, and the same as a REST API. Needs `keel-rlhf[studio]`, no torch.

`create_app(store, settings)` is the application, `keel.studio.serve.serve` runs it.
"""
