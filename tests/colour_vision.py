"""Colours as people see them: three colour deficiencies, perceived differences, and contrast.

References:
    Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009: the
    matrices of severity 1, for linear RGB.
    Sharma, Wu and Dalal, The CIEDE2000 Color-Difference Formula: Implementation Notes, 2005.
    W3C, Web Content Accessibility Guidelines 2.2, contrast ratio.
"""

import numpy as np

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_TO_XYZ = np.array(  # of sRGB, IEC 61966-2-1
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def over(colour, ground):
    """A colour ``#rrggbb`` or ``#rrggbbaa`` over an opaque ground, as sRGB from 0 to 1 (3,)."""
    opacity = int(colour[7:9] or "ff", 16) / 255
    return opacity * _srgb(colour) + (1 - opacity) * _srgb(ground)


def _srgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """The contrast ratio of two sRGB colours, from 1 to 21."""
    low, high = sorted(float(_TO_XYZ[1] @ linear(c)) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def seen(srgb, vision):
    """CIELAB (3,) of a colour as seen with a deficiency."""
    xyz = _TO_XYZ @ np.clip(VISIONS[vision] @ linear(srgb), 0, 1) / _TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(lab1, lab2):
    """CIEDE2000."""
    (l1, a1, b1), (l2, a2, b2) = lab1, lab2
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + (1 - np.sqrt(mean**7 / (mean**7 + 25**7))) / 2
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = (h1 + h2 if c1 * c2 == 0 else 2 * h1 + turn) / 2 % 360
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    cos = (np.cos(np.radians(k * hue - shift)) for k, shift in ((1, 30), (2, 0), (3, -6), (4, 63)))
    t = 1 + sum(weight * c for weight, c in zip((-0.17, 0.24, 0.32, -0.20), cos, strict=True))
    scale_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    dl = (l2 - l1) / scale_l
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    spin = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    return float(np.sqrt(dl**2 + dc**2 + dh**2 + spin * dc * dh))
