"""The one page that visitors see."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from shop.models import Product


def front_page(request: HttpRequest) -> HttpResponse:
    """The newest products that are for sale."""
    products = Product.objects.filter(active=True).select_related("category")
    newest = products.order_by("-created_at", "-pk")[:24]
    return render(request, "shop/front_page.html", {"products": newest})
