"""A small DICOM ECG, written with pydicom."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

from ecg.writers import LEADS


def dicom_bytes(digital: np.ndarray, syntax: str = "ExplicitVRLittleEndian", names: Sequence[str] = LEADS) -> bytes:
    """One group, 2.5 µV per unit, 500 Hz."""
    data, group = Dataset(), Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Modality = "ECG"
    group.WaveformOriginality, group.SamplingFrequency = "ORIGINAL", 500
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = digital.shape
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.ChannelDefinitionSequence = []
    for name in names:
        channel, source, unit = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "x", "MDC", f"Lead {name}"
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
        channel.ChannelSensitivity = 2.5
        group.ChannelDefinitionSequence.append(channel)
    group.WaveformData = digital.T.astype("<i2").tobytes()
    data.WaveformSequence = [group]
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
