"""What the doctor can find: how bad each kind is, what mmdet makes of it, and what ``--fix`` does."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How bad it is; the first two give the tool a status that is not 0."""

    STOPS = 'stops training'
    SPOILS = 'spoils training'
    NOTICE = 'notice'


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        severity (Severity): How bad it is.
        title (str): What it is, in the plural.
        why (str): What becomes of it where nobody looks.
        mend (str): What ``--fix`` does with it; '' where it cannot.
    """

    severity: Severity
    title: str
    why: str
    mend: str = ''


_STOPS, _SPOILS, _NOTICE = Severity
KINDS = {
    # the config and its files
    'config': Kind(_STOPS, 'settings that do not work', 'the data set cannot be built'),
    'path': Kind(_STOPS, 'files or folders that are not there', 'the run ends at once'),
    'file': Kind(_STOPS, 'annotation files that cannot be used', 'the run ends at once'),
    'classes': Kind(_STOPS, 'classes that do not fit', 'a head learns other classes, or they get wrong names'),
    'no_objects': Kind(_STOPS, 'sets without an object of their classes', 'there is nothing to learn or to find'),
    'category_name': Kind(_STOPS, 'names that two categories have', 'classes are counted wrongly', 'joined'),
    'category_id': Kind(_SPOILS, 'ids that two categories have', 'the last one takes all objects'),
    'entry': Kind(_STOPS, 'entries without what mmdet reads, or of another type', 'the file is not read', 'dropped'),
    'size_unsaid': Kind(_STOPS, 'images without their width or height', 'the file is not read', "the image's"),
    # images
    'image_missing': Kind(_STOPS, 'images that are not there', 'the run ends when it comes to them', 'dropped'),
    'image_empty': Kind(_STOPS, 'images of zero bytes', 'the run ends when it comes to them', 'dropped'),
    'image_unreadable': Kind(_STOPS, 'images that cannot be decoded', 'the run ends when it comes to them', 'dropped'),
    'image_damaged': Kind(_SPOILS, 'images that are cut or damaged', 'what is missing becomes grey', 'dropped'),
    'image_size': Kind(_STOPS, 'images of another size than the file says', 'boxes are elsewhere', 'dropped'),
    'image_turned': Kind(
        _STOPS, 'images annotated without their EXIF orientation', 'mmcv turns them, and boxes are elsewhere', 'dropped'
    ),
    'image_id': Kind(_SPOILS, 'ids that two images have', 'one image gets the objects of both', 'dropped'),
    'file_repeated': Kind(
        _SPOILS, 'images listed again under another id', 'objects of one entry are background in the other', 'joined'
    ),
    'train_and_val': Kind(
        _SPOILS, 'images, by content, in training and validation', 'AP is of what was learnt by heart',
        'dropped from training',
    ),
    # objects
    'annotation_id': Kind(_STOPS, 'ids that two objects have', 'mmdet refuses the file', 'numbered anew'),
    'image_nowhere': Kind(_SPOILS, 'objects of an image that is not listed', 'they are left out', 'dropped'),
    'category_nowhere': Kind(_SPOILS, 'objects of a category that is not listed', 'they become background', 'dropped'),
    'box_not_finite': Kind(_STOPS, 'boxes that are not four finite numbers', 'mmdet leaves them out', 'dropped'),
    'box_empty': Kind(_SPOILS, 'boxes without area', 'they become background', 'dropped'),
    'box_outside': Kind(_SPOILS, 'boxes wholly outside the image', 'they become background', 'dropped'),
    'box_overhangs': Kind(
        _SPOILS, 'boxes that reach outside the image by more than a pixel',
        'often corners or another scale in place of x, y, width, height', 'clipped',
    ),
    'area_unsaid': Kind(_STOPS, 'objects without their area', 'the file is not read', "the box's"),
    'area_zero': Kind(_SPOILS, 'objects whose area is said to be 0 or less', 'they become background', "the box's"),
    'crowd_unsaid': Kind(_STOPS, 'objects without iscrowd where AP is computed', 'evaluation ends in an error', '0'),
    'label': Kind(_STOPS, 'labels that are no class', 'the loss ends in an error', ''),
    # masks
    'mask_unsaid': Kind(_STOPS, 'objects without the mask that is asked for', 'loading ends in an error', 'dropped'),
    'mask_broken': Kind(_STOPS, 'masks that are neither polygons nor RLE', 'loading ends in an error', 'dropped'),
    'polygon': Kind(
        _SPOILS, 'polygons of less than three points, or an odd count of numbers',
        'the object is ignored, or lacks a part', 'polygon dropped',
    ),
    'mask_empty': Kind(_SPOILS, 'masks without a pixel', 'the mask head learns that the object is nothing', 'dropped'),
    # good to know
    'no_annotations': Kind(_NOTICE, 'images without an object of the classes', 'mmdet leaves them out by default'),
    'class_empty': Kind(_NOTICE, 'classes without an object', 'they cannot be learnt, or not be evaluated'),
    'category_unasked': Kind(_NOTICE, 'categories that are no class of the config', 'they are left out'),
    'box_tiny': Kind(_NOTICE, 'boxes under a pixel', 'mmdet leaves them out'),
    'image_twice': Kind(_NOTICE, 'images, by content, twice in a set', 'they count twice'),
    'same_name': Kind(_NOTICE, 'names of files in training and validation, of other content', 'a hint: look at some'),
    'orientation': Kind(_NOTICE, 'images with an EXIF orientation', 'boxes must be those of the turned image'),
    'small': Kind(_NOTICE, "objects under 8 pixels, by the root of a box's area", 'few detectors find them'),
    'unreached': Kind(_NOTICE, 'objects that no anchor reaches with an IoU of 0.5', 'they get one low match at best'),
    'unchecked': Kind(_NOTICE, 'what could not be checked', 'nothing is said about it'),
}  # fmt: skip


@dataclass
class Finding:
    """One kind of finding in one data set.

    Attributes:
        kind (str): A key of :data:`KINDS`.
        place (str): The key in the config, such as 'train_dataloader.dataset'.
        count (int): How many.
        names (list[str]): The first few, or what is wrong in a sentence.
        part (str): Of the annotation file that they stand in: 'images', 'annotations' or 'categories'.
        positions (list[int]): Their places in this part, all of them.
    """

    kind: str
    place: str
    count: int
    names: list[str]
    part: str = ''
    positions: list[int] = field(default_factory=list, repr=False)

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    @property
    def is_bad(self) -> bool:
        """Whether it stops or spoils a training."""
        return self.severity is not Severity.NOTICE
