"""The project's own container image, made without an engine or a registry: ``make image``.

    debootstrap ─▶ Debian base (kept by its recipe) ─┐
    pip wheel, pip download ─▶ dist/*.whl ───────────┴─▶ stack/Dockerfile, line by line ─▶ dist/eastwest-VERSION.tar

The recipe is the Dockerfile that engines build from too. Needs root, for what a chroot takes.
"""
