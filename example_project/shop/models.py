"""What a small shop keeps: a catalogue with pictures, customers, and their orders."""

from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.utils import timezone


class Category(models.Model):
    """A tree: every category but the top ones has a parent."""

    name = models.CharField("nombre", max_length=80)
    slug = models.SlugField("dirección", max_length=100, unique=True)
    parent = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="children",
        verbose_name="categoría superior",
    )

    class Meta:
        verbose_name = "categoría"
        verbose_name_plural = "categorías"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["parent", "name"], name="shop_category_parent_name"),
        ]

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """A word that finds products across categories."""

    name = models.CharField("nombre", max_length=40, unique=True)

    class Meta:
        verbose_name = "etiqueta"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """Something for sale, with its picture and, for some, a data sheet."""

    sku = models.CharField("código", max_length=20, unique=True)
    name = models.CharField("nombre", max_length=200)
    description = models.TextField("descripción", blank=True)
    category = models.ForeignKey(
        Category, on_delete=models.PROTECT, related_name="products", verbose_name="categoría"
    )
    tags = models.ManyToManyField(Tag, blank=True, verbose_name="etiquetas")
    price = models.DecimalField(
        "precio", max_digits=12, decimal_places=2, validators=[MinValueValidator(0)]
    )
    stock = models.PositiveIntegerField("existencias", default=0)
    active = models.BooleanField("a la venta", default=True)
    attributes = models.JSONField("atributos", default=dict, blank=True)
    picture = models.FileField("foto", upload_to="products", max_length=200, blank=True)
    data_sheet = models.FileField("ficha", upload_to="data_sheets", max_length=200, blank=True)
    created_at = models.DateTimeField("creado", default=timezone.now)

    class Meta:
        verbose_name = "producto"
        ordering = ["name"]
        indexes = [
            models.Index(fields=["category", "name"], name="shop_product_category_name"),
            models.Index(fields=["price"], condition=Q(active=True), name="shop_product_on_sale"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(price__gte=0), name="shop_product_price"),
        ]

    def __str__(self) -> str:
        return self.name


class Customer(models.Model):
    """A person who buys; the same address in other letters is the same person."""

    name = models.CharField("nombre", max_length=120)
    email = models.EmailField("correo")
    tax_id = models.CharField("CUIT", max_length=13, blank=True)
    city = models.CharField("localidad", max_length=80)
    created_at = models.DateTimeField("alta", default=timezone.now)

    class Meta:
        verbose_name = "cliente"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(Lower("email"), name="shop_customer_email"),
        ]

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """One purchase."""

    class Status(models.TextChoices):
        PLACED = "placed", "recibido"
        PAID = "paid", "pagado"
        SENT = "sent", "enviado"
        CANCELLED = "cancelled", "anulado"

    number = models.UUIDField("número", unique=True)
    customer = models.ForeignKey(
        Customer, on_delete=models.PROTECT, related_name="orders", verbose_name="cliente"
    )
    status = models.CharField(
        "estado", max_length=10, choices=Status.choices, default=Status.PLACED
    )
    note = models.TextField("nota", blank=True)
    placed_at = models.DateTimeField("recibido", default=timezone.now)

    class Meta:
        verbose_name = "pedido"
        ordering = ["-placed_at"]
        indexes = [
            models.Index(F("customer"), F("placed_at").desc(), name="shop_order_customer_placed"),
        ]

    def __str__(self) -> str:
        return str(self.number)


class OrderLine(models.Model):
    """How many of one product, at the price of that day."""

    order = models.ForeignKey(
        Order, on_delete=models.CASCADE, related_name="lines", verbose_name="pedido"
    )
    product = models.ForeignKey(Product, on_delete=models.PROTECT, verbose_name="producto")
    quantity = models.PositiveSmallIntegerField("cantidad")
    unit_price = models.DecimalField("precio unitario", max_digits=12, decimal_places=2)

    class Meta:
        verbose_name = "renglón"
        verbose_name_plural = "renglones"
        constraints = [
            models.UniqueConstraint(fields=["order", "product"], name="shop_line_order_product"),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="shop_line_quantity"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} de {self.product}"
