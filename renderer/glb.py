"""Meshes with a colour at every vertex as binary glTF, which browsers read."""

import json
import struct

import numpy as np

ARRAYS = {"POSITION": ("VEC3", 5126), "NORMAL": ("VEC3", 5126), "COLOR_0": ("VEC4", 5121)}  # 5121: uint8, 5126: float32
INDICES = "SCALAR", 5125  # uint32


def glb(
    vertices: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray,
    normals: np.ndarray | None = None,
    gloss: float = 0.0,
    opacity: float = 1.0,
) -> bytes:
    """Return a mesh as the bytes of a .glb file.

    vertices: (V, 3) [m]; triangles: (T, 3); colours: (V, 3) linear
    normals: (V, 3); None for a surface whose colours are what is seen of it, whatever the light
    gloss: from 0 matt to 1 polished; opacity: less than 1 for what can be looked through
    """
    brightest = max(float(np.max(colours)), 1e-6)  # bytes of a share of it take a third of floats
    shares = np.full((len(vertices), 4), 255, np.uint8)
    shares[:, :3] = np.rint(255.0 * np.clip(colours / brightest, 0.0, 1.0))
    arrays = {"POSITION": np.asarray(vertices, np.float32), "COLOR_0": shares}
    material = {
        "pbrMetallicRoughness": {
            "baseColorFactor": [brightest, brightest, brightest, opacity],
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0 - 0.6 * gloss,
        }
    }
    extensions = []
    if normals is None:
        extensions = ["KHR_materials_unlit"]
        material["extensions"] = {name: {} for name in extensions}
    else:
        arrays["NORMAL"] = np.asarray(normals, np.float32)
    if opacity < 1.0:
        material["alphaMode"] = "BLEND"
    views = []
    accessors = []
    contents = b""
    indices = np.asarray(triangles, np.uint32).ravel()
    for array, (kind, number) in [*((a, ARRAYS[name]) for name, a in arrays.items()), (indices, INDICES)]:
        views.append({"buffer": 0, "byteOffset": len(contents), "byteLength": array.nbytes})
        accessors.append({"bufferView": len(views) - 1, "componentType": number, "count": len(array), "type": kind})
        contents += array.tobytes()  # of whole words of 4 bytes, whatever the array
    accessors[0] |= {"min": arrays["POSITION"].min(0).tolist(), "max": arrays["POSITION"].max(0).tolist()}
    accessors[1]["normalized"] = True
    primitive = {"attributes": {name: i for i, name in enumerate(arrays)}, "indices": len(arrays), "material": 0}
    scene = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(contents)}],
        "extensionsUsed": extensions,
    }
    if not extensions:
        del scene["extensionsUsed"]
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunks = b"".join(
        struct.pack("<I4s", len(data), name) + data for name, data in ((b"JSON", text), (b"BIN\0", contents))
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
