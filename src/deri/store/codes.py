"""What the codes of a store mean in words: why recordings were refused, and what is to be known of stored ones."""

from __future__ import annotations

REJECTS = {
    # what the files hold
    "missing_file": "There is no such file.",
    "missing_header": "The signal file has no header beside it.",
    "missing_signal_file": "The header names a signal file that is not there.",
    "truncated_signal": "The signal file ends before the length that its header states.",
    "lead_count_mismatch": "The header and the signal file disagree about the number of leads.",
    "unequal_lead_lengths": "The leads have different lengths.",
    "unsupported_format": "The content is of no format that is read.",
    "unreadable_file": "The file cannot be opened.",
    "unreadable_signal": "The signal cannot be decoded.",
    "bad_header": "The header contradicts itself or the format.",
    "bad_xml": "The XML is damaged.",
    "bad_gain": "The gain leaves no room for an ECG.",
    "bad_units": "The unit is no voltage.",
    "no_signals": "The file holds no signal.",
    "several_recordings": "The file holds several recordings; one is named by FILE::NAME.",
    "stated_by_file": "An option says what the file states itself.",
    "too_long": "More samples than are read at once.",
    "missing_dependency": "Reading this format needs a package that is not installed.",
    "reader_error": "The reader failed unexpectedly: a defect worth reporting.",
    # what the recordings are
    "missing_leads": "Fewer leads than --min-leads.",
    "unknown_leads": "None of the channels is a lead of the twelve.",
    "duplicate_lead": "A lead stands twice in the file.",
    "flat_record": "Every lead is constant: no electrode was connected, or nothing was recorded.",
    "gaps_too_long": "More is missing of a lead than can be filled: over 1 s at a stretch, or over 20 %.",
    "too_short": "Shorter than 2 s.",
    "bad_sampling_rate": "A sampling rate that is not that of an ECG (50 Hz to 100 kHz).",
    "amplitude_out_of_range": "Amplitudes that are not those of a heart (below 5 µV, or beyond ±32.767 mV).",
    "wrong_unit": "Amplitudes a thousand times too large or too small: µV or V that are taken for mV.",
    "duplicate_recording": "Its samples are those of an earlier recording; left out by --duplicates drop.",
    # what the tables of the data set say
    "no_report": "The data set has no report for the recording.",
    "report_too_short": "The report has too few words.",
    "duplicate_study_id": "The tables list the study more than once.",
    "duplicate_file": "The tables list the file more than once.",
    "subject_mismatch": "The tables give the recording to different patients.",
    "bad_path": "The tables name a place outside the data set.",
    "missing_study_id": "A row of the tables without an id.",
    "missing_record_id": "A row of the tables without an id.",
    "no_reference": "Neither a header nor the table of labels knows the recording.",
    "bad_label": "The table of labels names a class that does not exist.",
    "conflicting_labels": "The recording has different labels in two places.",
    "bad_scp_codes": "The statements of the recording cannot be read.",
}
"""Reason in ``rejects.parquet`` → sentence."""

SUSPICIONS = {
    "duplicate": "The samples are those of an earlier recording, which the flag names.",
    "flat_lead": "The lead is constant to 1 µV.",
    "missing_lead": "The lead was not recorded and cannot be derived; its row is zero and masked.",
    "partial_lead": "Recorded for part of the time, as on a printed sheet; elsewhere a flat line at the lead's mean.",
    "clipped": "Flat tops with steep flanks: the lead was cut off at a level.",
    "saturated": "0.2 s or longer at an extreme beyond ±2 mV: an amplifier or converter at its limit.",
    "limb_leads_contradict": "The limb leads obey neither Einthoven nor Goldberger: leads are mixed up.",
    "inverted_lead": "The lead has the opposite sign of what the others say.",
    "arm_reversal": "Lead I is the opposite of V6, as with the electrodes of the arms exchanged.",
    "implausible_rate": "The time scale of the beats is no heart's: the sampling rate is probably wrong.",
    "low_amplitude": "No lead spans 0.1 mV.",
    "repaired": "Missing samples were filled.",
    "checksum_mismatch": "The samples do not have the checksum of the header.",
    "surplus_data": "The signal file is longer than its header says.",
    "uncalibrated": "No gain is stated; 200 units per mV were assumed.",
    "gain_corrected": "The header is one of those published with a false gain; the true one was used.",
    "calibration_pulse": "The recording ends with the device's calibration pulse.",
    "several_recordings": "The file holds several recordings; the fullest was read.",
    "groups_left_out": "Channel groups of another sampling rate, or as short as a beat, were not read.",
    "strips_left_out": "Of stretches of a lead that overlap in time the longest was read.",
    "assumed_sph": "The file has the form of the SPH data set, which states neither rate nor unit: 500 Hz, mV.",
    "unclosed_recording": "The recorder stated no length; complete data records were read.",
    "inconsistent_header": "The header contradicts itself about where the samples begin.",
    "lossy_compression": "An SCP-ECG that holds averages outside the QRS complexes; read by interpolation.",
    "limb_leads_restored": "III, aVR, aVL and aVF held only what I and II do not say; they were restored.",
    "lead_time_offset": "Leads are said to begin at different times; they were read as simultaneous.",
    "inconsistent_gains": "The leads' gains in the header contradict Einthoven's law.",
    "common_gain": "One gain for all leads, 1000 units per mV, stands in for the header's contradicting ones.",
}
"""First part of a flag in the column ``quality`` → sentence: what may make a recording unfit."""

NOTES = {
    "derived_lead": "The lead was computed from two other limb leads.",
    "resampled": "Recorded at another rate than 500 Hz.",
    "cropped": "Longer than the window that is stored.",
    "padded": "Shorter than 10 s; zeros follow.",
    "padding_left_out": "Zeros of all leads at the ends, up to the length of a batch of recordings, were left out.",
}
"""As :data:`SUSPICIONS`, for what is normal."""


def meaning(code: str) -> str:
    """Return the sentence of a code, or nothing for one that is unknown here."""
    return SUSPICIONS.get(code) or NOTES.get(code) or REJECTS.get(code, "")
