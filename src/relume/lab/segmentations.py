"""Human segmentations of photographs, as the Berkeley data set stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UsageError


def human_regions(path: Path) -> np.ndarray:
    """One person's segmentation of a photograph of BSDS500 (Arbelaez et al., TPAMI 2011).

    Of the four to eight people who drew one, the one whose number of segments is the middle of all
    (the lower of two): neither the laziest nor the most patient.

    Args:
        path: A `.mat` file of `groundTruth`.

    Returns:
        (H, W) int32, labels from 1 without gaps.

    Raises:
        UsageError: There is no such file, or it holds no segmentation.
    """
    drawn = every_segmentation(path)
    counts = [int(labels.max()) for labels in drawn]
    return drawn[int(np.argsort(counts, kind="stable")[(len(counts) - 1) // 2])]


def every_segmentation(path: Path) -> list[np.ndarray]:
    """All people's segmentations of one photograph: (H, W) int32 each, labels from 1.

    Raises:
        UsageError: There is no such file, or it holds no segmentation.
    """
    from scipy.io import loadmat  # comes with scikit-image
    from scipy.io.matlab import MatReadError

    try:
        cells = loadmat(path)["groundTruth"].ravel()
        found = [np.asarray(cell["Segmentation"][0, 0]) for cell in cells]
    except (OSError, KeyError, ValueError, TypeError, MatReadError) as error:
        raise UsageError(
            f"{path} holds no human segmentation of BSDS500 ({error}). Give the folder with the "
            "photographs' .mat files as data.segmentations."
        ) from None
    return [
        np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32) + 1
        for labels in found
    ]
