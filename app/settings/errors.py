"""What can be wrong with settings, as a branch of the tree in `mlx_engine.protocol.errors`.

SlipstreamError
└── SettingsError     a settings file or a variable of the environment cannot be used as it is
"""

from __future__ import annotations

from mlx_engine.protocol.errors import SlipstreamError


class SettingsError(SlipstreamError):
    """Settings that cannot be used; every line of the message names the place and what is allowed there."""
