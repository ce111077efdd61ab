"""The errors that are a user's to mend. Their message says what was found where, what was expected, what to do."""


class TillmapError(Exception):
    """Base of every error shown to a user as one or two lines, without a traceback."""


class InputError(TillmapError):
    """A data file, or a row of one, is not as it should be."""


class ParamsError(TillmapError):
    """params.yaml has an unknown or missing key, or a value out of range or of the wrong type."""


class ModelError(TillmapError):
    """A model is missing, incomplete, or not what it was said to be."""


class ResourceError(TillmapError):
    """The machine has too little of something: memory, disk, or a device."""
