"""Read image files from the body of a request: one file, or a form as browsers and `curl -F` send it."""

import base64
import binascii
from email.message import Message
from email.parser import BytesHeaderParser

from recipes import augment

_LARGEST_HEAD = 8192  # maximum bytes of the headers of one part
_SIGNATURE = "signature_name"


def is_image(body: bytes, content_type: str) -> bool:
    """Return whether a body is an image file.

    A body is an image file if it begins with the bytes of an image format, supported or not. It also is one if its
    content type is an image's and it does not begin like JSON.
    """
    if augment.file_kind(body):
        return True
    if body.lstrip()[:1] == b"{":
        return False
    kind = _typed(content_type).get_content_type()
    return kind.startswith("image/") or kind == "application/octet-stream" or bool(augment.unsupported(body).numpy())


def is_form(content_type: str) -> bool:
    return _typed(content_type).get_content_type() == "multipart/form-data"


def read_form(body: bytes, content_type: str, most: int) -> tuple[str, list[bytes]]:
    """Return the signature's name ("" by default) and the files of a multipart/form-data body, in order (RFC 7578).

    A part may also contain an image as base64 text, with or without `data:image/…;base64,` before it.

    Splitting takes time and memory in proportion to the body, even if it has many parts.

    Args:
        body: The bytes of the body.
        content_type: The Content-Type header, which contains the boundary.
        most: Maximum number of files.

    Raises:
        ValueError: If the body is not a form, has too many files, or has a field that is neither a file nor
            `signature_name`.
    """
    boundary = _typed(content_type).get_boundary()
    if not boundary:
        raise ValueError("the multipart body has no boundary in its Content-Type; let the client set that header")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"), most + 3)[1:]
    too_many = f"more than {most} images in one request; send at most {most}"
    if len(parts) > most + 2:  # all files, the signature's name, and the text after the last boundary
        raise ValueError(too_many)
    signature, files = "", []
    for part in parts:
        if part.startswith(b"--"):
            return signature, files
        name, is_file, content = _part(part)
        if name != _SIGNATURE and (image := _from_base64(content)) is not None:
            is_file, content = True, image
        if is_file:
            files.append(content)
            if len(files) > most:
                raise ValueError(too_many)
        elif name == _SIGNATURE:
            signature = content.decode("utf-8", "replace")
        else:
            raise ValueError(
                f"the field {name!r} is not a file; send images as files, as `curl -F image=@a.jpg` does, or in base64"
            )
    raise ValueError("the multipart body ends before its last boundary; send all of it")


def _part(part: bytes) -> tuple[str, bool, bytes]:
    """Return the name of a part, whether it is a file, and its content."""
    head, gap, content = part.partition(b"\r\n\r\n")
    if not gap or len(head) > _LARGEST_HEAD:
        raise ValueError("a part of the multipart body has no empty line after its headers; put one before the content")
    headers = BytesHeaderParser().parsebytes(head.lstrip())
    name = headers.get_param("name", "", header="content-disposition")
    kind = headers.get_content_type()
    is_file = headers.get_filename() is not None or kind.startswith("image/") or kind == "application/octet-stream"
    return str(name), is_file, content


def _from_base64(text: bytes) -> bytes | None:
    """Return the image file that base64 text contains; None if the text contains anything else."""
    if text[:_LARGEST_HEAD].lstrip().startswith(b"data:"):
        text = text.partition(b",")[2]
    try:
        content = base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if is_image(content, "") else None


def _typed(content_type: str) -> Message:
    message = Message()
    message["content-type"] = content_type
    return message
