"""What happens in a shop of Oscar, by the factories that it ships for the tests of shops."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.flatpages.models import FlatPage
from django.core.files.base import ContentFile
from django.db import transaction
from oscar.core.loading import get_model
from oscar.test import factories
from oscar.test.basket import add_product
from PIL import Image as Picture


@transaction.atomic
def fill() -> None:
    staff = factories.UserFactory(username="staff", is_staff=True, is_superuser=True)
    seller = factories.UserFactory(username="seller", is_staff=True)
    seller.user_permissions.add(Permission.objects.get(codename="dashboard_access"))
    category = get_model("catalogue", "Category")
    root = category.add_root(name="Libros", image=_picture("libros.png", 1))
    leaf = root.add_child(name="Ñandúes")
    products = [_product(number, leaf, seller) for number in range(4)]
    parent = factories.create_product(structure="parent", title="Taza")
    for size in ("S", "L"):
        factories.create_product(parent=parent, title=size, price=Decimal("3.333"))
    get_model("catalogue", "ProductRecommendation").objects.create(
        primary=products[0], recommendation=products[1]
    )
    customers = [factories.UserFactory() for _ in range(3)]
    country = factories.CountryFactory()
    card = factories.SourceTypeFactory()
    for number, customer in enumerate(customers):
        factories.UserAddressFactory(user=customer, country=country)
        order = factories.create_order(
            number=f"1000{number}",
            basket=_basket(customer, products),
            user=customer,
            shipping_address=factories.ShippingAddressFactory(country=country),
            billing_address=factories.BillingAddressFactory(country=country),
        )
        order.notes.create(user=staff, message="Entregar por la tarde 🦆")
        factories.TransactionFactory(source=factories.SourceFactory(order=order, source_type=card))
        factories.ProductReviewFactory(product=products[number], user=customer, body="Muy bueno")
        factories.WishListFactory(owner=customer).add(products[number])
    order.set_status("Being processed")
    _basket(customers[0], products).add_product(parent.children.first())
    factories.create_voucher(code="NAVIDAD")
    FlatPage.objects.create(url="/about/", title="About", content="<p>Quiénes somos</p>")


def _product(number: int, category: Any, seller: Any) -> Any:
    attribute = get_model("catalogue", "ProductAttribute")
    kind, _made = get_model("catalogue", "ProductClass").objects.get_or_create(name="Libro")
    for code, type_ in (("pages", attribute.INTEGER), ("cover", attribute.IMAGE)):
        kind.attributes.get_or_create(code=code, defaults={"name": code, "type": type_})
    product = factories.create_product(
        upc=f"97800000000{number}",
        title=f"Libro {number}",
        product_class=kind.name,
        price=Decimal("9.99"),
        num_in_stock=20,
        partner_name="Editorial",
        partner_users=[seller],
    )
    product.categories.add(category)
    product.attr.pages = 100 + number
    product.attr.cover = _picture(f"cover_{number}.png", number)
    product.attr.save()
    for view in range(2):
        factories.create_product_image(product, _picture(f"view {number} {view}.png", 40 * view))
    return product


def _basket(owner: Any, products: Any) -> Any:
    basket = factories.create_basket(empty=True)
    basket.owner = owner
    basket.save()
    for product in products:
        add_product(basket, quantity=2, product=product)
    return basket


def _picture(name: str, shade: int) -> ContentFile[bytes]:
    file = io.BytesIO()
    Picture.new("RGB", (60, 40), (shade, 90, 90)).save(file, "PNG")
    return ContentFile(file.getvalue(), name=name)
