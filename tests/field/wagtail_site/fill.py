"""What editors do in a site of Wagtail: pages, pictures, papers, and what only some may see."""

from __future__ import annotations

import datetime
import io
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.core.files.images import ImageFile
from django.db import transaction
from PIL import Image as Picture
from wagtail.contrib.redirects.models import Redirect
from wagtail.documents.models import Document
from wagtail.images.models import Image
from wagtail.models import Collection, CollectionViewRestriction, Page, PageViewRestriction, Site
from wagtail.users.models import UserProfile

from tests.field.wagtail_site.models import Author, Contact, FormField, GalleryImage, Post

RENDITIONS = ("fill-80x80", "width-120", "max-60x90|format-webp")


@transaction.atomic
def fill() -> None:
    editor = get_user_model().objects.create_superuser("editor", "editor@example.com", "secret")
    UserProfile.objects.create(user=editor, avatar=ContentFile(_jpeg(200), name="me.jpg"))
    writer = get_user_model().objects.create_user("writer", password="secret")
    writer.groups.add(Group.objects.get(name="Editors"))
    staff = Collection.get_first_root_node().add_child(name="Staff only")
    CollectionViewRestriction.objects.create(
        collection=staff, restriction_type="password", password="open sesame"
    )
    images = [_image(number, editor) for number in range(4)]
    documents = [
        Document.objects.create(
            title=f"Paper {number}",
            file=ContentFile(b"%PDF-1.4 " + bytes([number]) * 5000, name=f"päper {number}.pdf"),
            collection=staff if number % 2 else Collection.get_first_root_node(),
        )
        for number in range(3)
    ]
    author = Author.objects.create(name="Ñandú", portrait=images[0])
    home = Site.objects.get(is_default_site=True).root_page
    posts = [_post(home, number, images, documents, author, editor) for number in range(5)]
    PageViewRestriction.objects.create(page=posts[1], restriction_type="login")
    posts[2].move(posts[0], pos="last-child")
    Redirect.objects.create(old_path="/old", redirect_page=posts[0])
    contact = home.add_child(instance=Contact(title="Contact", to_address="a@example.com"))
    FormField.objects.create(page=contact, label="Question", field_type="singleline")
    contact.get_submission_class().objects.create(page=contact, form_data={"question": "¿Qué?"})


def _image(number: int, user: Any) -> Any:
    image = Image.objects.create(
        title=f"Picture {number}",
        file=ImageFile(io.BytesIO(_jpeg(number)), name=f"picture_{number}.jpg"),
        uploaded_by_user=user,
    )
    image.tags.add("blue", f"n{number}")
    image.get_renditions(*RENDITIONS)
    return image


def _post(
    home: Page, number: int, images: Any, documents: Any, author: Author, editor: Any
) -> Post:
    post = Post(
        title=f"Post {number}",
        intro="<p>Así <b>empieza</b> 🦆</p>",
        body=[
            ("heading", f"Heading {number}"),
            ("paragraph", "<p>Text with an <i>accent</i></p>"),
            ("document", documents[number % len(documents)]),
            ("links", [{"page": home}]),
        ],
    )
    home.add_child(instance=post)
    post.authors.add(author)
    post.tags.add("tag", f"t{number}")
    post.gallery.add(*(GalleryImage(image=image, sort_order=n) for n, image in enumerate(images)))
    post.save_revision(user=editor).publish(user=editor)
    post.title += " (draft)"
    post.save_revision(
        user=editor,
        approved_go_live_at=datetime.datetime(2099, 1, 1, 12, 0, 0, 1, tzinfo=datetime.UTC),
    )
    return post


def _jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (160, 120), (shade, 80, 120)).save(file, "JPEG")
    return file.getvalue()
