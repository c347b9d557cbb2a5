"""
The mark of an image as made by a model: XMP with IPTC's digital source type, the model, the request and the date.

Invariant: a mark is embedded before the image is hashed and stored, and the marked file is decoded once more. An image
that can't be marked is stored as it was received, with a warning: it is paid. Equal jobs give equal marks, so an image
that is fetched again has the same bytes.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from airflow_provider_ideogram.exceptions import IdeogramInvalidImage
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage
from airflow_provider_ideogram.storage.image_record import iso_utc
from airflow_provider_ideogram.storage.target import PROVENANCE
from airflow_provider_ideogram.storage.xmp import NotEmbedded, embed

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.job import Job

log = logging.getLogger(__name__)

#: IPTC's term for media that a generative model has made.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#: The properties of the mark, and the namespace of each prefix.
_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SOURCE = "Iptc4xmpExt:DigitalSourceType"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{rdf}">
{description}
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
_END = b"</rdf:RDF>"
#: What XML 1.0 can't hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def mark(job: Job, image: SpooledImage) -> SpooledImage | None:
    """
    Return a copy of an image with the mark, which the caller closes; None if it can't be marked.

    :param job: The request that made it.
    """
    image.file.seek(0)
    try:
        marked = embed(image.file.read(), image.content_type, lambda existing: _packet(job, existing))
        with ImageSpool() as spool:
            spool.write(marked)
            return replace(spool.finish(), provenance=PROVENANCE[0])
    except (NotEmbedded, IdeogramInvalidImage) as problem:
        reason = getattr(problem, "reason", problem)
        log.warning("The image of request %s is stored without a provenance mark: %s", job.request_id, reason)
        return None
    finally:
        image.file.seek(0)


def _packet(job: Job, existing: bytes | None) -> bytes:
    """
    Return the packet of an image.

    :param existing: The packet that the vendor has embedded: what it says is kept.
    """
    properties = {_SOURCE: SOURCE_TYPE}
    if job.request is not None:
        properties |= {"Iptc4xmpExt:AISystemUsed": job.request.model, "xmp:CreatorTool": job.request.model}
    properties |= {"xmp:CreateDate": iso_utc(job.submitted_at), "dc:identifier": job.request_id}
    if existing is None:
        return _PACKET.format(rdf=_RDF, description=_description(properties)).encode()
    before, end, after = existing.rpartition(_END)
    if _SOURCE.encode() in existing or not end:
        raise NotEmbedded("its own XMP data names a source, or is not of the usual form")
    new = {name: value for name, value in properties.items() if name.encode() not in existing}
    return before + _description(new).encode() + b"\n" + end + after


def _description(properties: dict[str, str]) -> str:
    prefixes = dict.fromkeys(name.partition(":")[0] for name in properties)
    attributes = {f"xmlns:{prefix}": _NAMESPACES[prefix] for prefix in prefixes} | properties
    text = "".join(f"\n    {name}={quoteattr(_NO_XML.sub('', value))}" for name, value in attributes.items())
    return f'  <rdf:Description rdf:about="" xmlns:rdf="{_RDF}"{text}/>'
