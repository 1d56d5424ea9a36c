"""The settings' branch of the error tree in `mlx_engine.protocol.errors`.

SlipstreamError
└── SettingsError     a settings file or an environment variable cannot be used
"""

from __future__ import annotations

from mlx_engine.protocol.errors import SlipstreamError


class SettingsError(SlipstreamError):
    """Settings cannot be used; each line of the message says where and what to use instead."""
