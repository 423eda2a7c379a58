"""Writes a small tensorflow-datasets image set to disk without TensorFlow, in the format of a prepared one."""

import io
import json

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2


def write_digits_as_mnist(data_dir):
    """Write scikit-learn's 1,797 digits, drawn at MNIST's size, where TFDS looks for MNIST."""
    digits = load_digits()
    drawn = np.pad(zoom(digits.images / 16, (1, 2.5, 2.5), order=1), ((0, 0), (4, 4), (4, 4)))
    images = np.round(255 * drawn).astype(np.uint8)[..., None]
    parts = {"train": slice(1500), "test": slice(1500, None)}
    write_image_set(
        data_dir,
        "mnist",
        {split: images[rows] for split, rows in parts.items()},
        labels={split: digits.target[rows] for split, rows in parts.items()},
        version="3.0.1",
    )


def write_image_set(data_dir, name, splits, shape=None, labels=None, version="1.0.0"):
    """Write {split: images [n, height, width, channels] uint8} and {split: labels [n]}, by default all 0, as a set."""
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, images in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels[split] if labels else [0] * len(images), strict=True):
            writer.write(_example(image, label).SerializeToString())
        writer.close()
        size = str(sum(image.nbytes for image in images))
        infos.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": size,
                "shardLengths": [str(len(images))],
            }
        )
    shape = shape or next(iter(splits.values()))[0].shape
    _write(
        folder / "dataset_info.json", {"fileFormat": "array_record", "name": name, "version": version, "splits": infos}
    )
    _write(
        folder / "features.json",
        {
            "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "featuresDict": {
                "features": {
                    "image": {
                        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                        "image": {
                            "dtype": "uint8",
                            "shape": {"dimensions": [str(side) for side in shape]},
                            "encodingFormat": "png",
                        },
                    },
                    "label": {
                        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                        "classLabel": {"numClasses": "10"},
                    },
                }
            },
        },
    )


def _write(path, content):
    path.write_text(json.dumps(content))


def _example(image, label):
    png = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, "PNG")
    features = {
        "image": tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[png.getvalue()])),
        "label": tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[int(label)])),
    }
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
