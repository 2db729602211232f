"""What the tutorial of Wagtail has its reader write, with what its reference adds to it."""

from __future__ import annotations

from django.db import models
from modelcluster.contrib.taggit import ClusterTaggableManager
from modelcluster.fields import ParentalKey, ParentalManyToManyField
from taggit.models import TaggedItemBase
from wagtail import blocks
from wagtail.contrib.forms.models import AbstractEmailForm, AbstractFormField
from wagtail.documents.blocks import DocumentChooserBlock
from wagtail.fields import RichTextField, StreamField
from wagtail.images.blocks import ImageBlock
from wagtail.models import Orderable, Page
from wagtail.search import index
from wagtail.snippets.models import register_snippet


@register_snippet
class Author(models.Model):
    name = models.CharField(max_length=255)
    portrait = models.ForeignKey(
        "wagtailimages.Image", null=True, on_delete=models.SET_NULL, related_name="+"
    )


class PostTag(TaggedItemBase):
    content_object = ParentalKey("Post", related_name="tagged_items", on_delete=models.CASCADE)


class Post(Page):
    intro = RichTextField(blank=True)
    authors = ParentalManyToManyField(Author, blank=True)
    tags = ClusterTaggableManager(through=PostTag, blank=True)
    body = StreamField(
        [
            ("heading", blocks.CharBlock()),
            ("paragraph", blocks.RichTextBlock()),
            ("image", ImageBlock()),
            ("document", DocumentChooserBlock()),
            ("links", blocks.ListBlock(blocks.StructBlock([("page", blocks.PageChooserBlock())]))),
        ]
    )

    search_fields = [*Page.search_fields, index.SearchField("intro"), index.SearchField("body")]


class GalleryImage(Orderable):
    post = ParentalKey(Post, related_name="gallery", on_delete=models.CASCADE)
    image = models.ForeignKey("wagtailimages.Image", related_name="+", on_delete=models.CASCADE)


class FormField(AbstractFormField):
    page = ParentalKey("Contact", related_name="form_fields", on_delete=models.CASCADE)


class Contact(AbstractEmailForm):
    thanks = RichTextField(blank=True)
