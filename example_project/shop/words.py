"""The words that the example data is made of, in the scripts that a real shop meets."""

from __future__ import annotations

# Category, its own categories, and the products of each.
CATALOGUE: dict[str, dict[str, list[str]]] = {
    "Almacén": {
        "Yerba y té": ["Yerba mate suave", "Yerba con poleo", "Té negro en hebras", "緑茶 煎茶"],
        "Dulces": ["Dulce de leche «Ñandú»", "Mermelada de cayote", "Turrón de maní", "羊羹 小豆"],
        "Aceites": ["Aceite de oliva virgen", "Aceite de girasol", "Ελαιόλαδο Κορωνέικη"],
        "Cereales": ["Polenta instantánea", "Quinua del altiplano", "Гречка ядрица"],
    },
    "Frescos": {
        "Quesos": ["Queso de cabra ahumado", "Provoleta parrillera", "Queso sardo añejo"],
        "Panadería": ["Pan de campo", "Medialunas de manteca", "Chipá guaraní", "חלה לשבת"],
        "Verdulería": ["Ajo morado", "Zapallo anco", "Piña misionera", "แตงกวาดอง"],
    },
    "Especias": {
        "Molidas": ["Pimentón dulce", "Ají molido «Calchaquí»", "हल्दी पाउडर", "고운 고춧가루"],
        "Enteras": ["Clavo de olor", "Comino en grano", "هيل أخضر", "花椒"],
    },
    "Hogar": {
        "Cocina": ["Mate de calabaza", "Bombilla de alpaca", "Cazuela de barro", "寿司桶"],
        "Limpieza": ["Jabón de lavar", "Esponja vegetal 🧽", "Trapo de piso"],
    },
    "Bebidas": {
        "Sin alcohol": ["Soda en sifón", "Jugo de pomelo", "Café de especialidad", "تمر هندي"],
        "Vinos": ["Malbec del valle", "Torrontés salteño", "Вино игристое «Крым»"],
    },
}
VARIANTS = ["", "chico", "grande", "x 6", "orgánico", "edición limitada"]
TAGS = [
    "oferta", "nuevo", "sin TACC", "vegano", "regional", "importado", "artesanal", "a granel",
    "reciclable", "más vendido", "fiesta", "niños", "feria", "estación", "desayuno", "asado",
    "picada", "☕", "日本", "Ελλάδα",
]  # fmt: skip
GIVEN_NAMES = [
    "María José", "Ángel", "Nicolás", "Lucía", "Íñigo", "Begoña", "Raúl", "Noemí", "Agustín",
    "Belén", "Joaquín", "Sofía", "Martín", "Zoë", "Andrés", "Inés", "Tomás", "Úrsula", "Óscar",
    "Ailín", "Nahuel", "Çelik", "Łukasz", "Наталья", "美咲",
]  # fmt: skip
SURNAMES = [
    "Muñoz", "Peña", "Núñez", "García", "Fernández", "Güiraldes", "Ibáñez", "O'Higgins", "Zúñiga",
    "Quiroga", "Echeverría", "Yáñez", "D'Angelo", "Ocampo", "López", "Domínguez", "Agüero",
    "Ñancucheo", "Benítez", "Sarmiento",
]  # fmt: skip
CITIES = [
    "Córdoba", "Neuquén", "San Miguel de Tucumán", "Río Gallegos", "Paraná", "Ñorquinco",
    "Bahía Blanca", "Ushuaia", "Posadas", "Güer Aike", "La Rioja", "Mendoza",
]  # fmt: skip
NOTES = [
    "", "", "", "Tocar el timbre dos veces.", "Es un regalo 🎁: sin precio, por favor.",
    "Dejar en la portería;\nsi no hay nadie, llamar.", 'Dice "frágil" — ¡cuidado!',
    "Retira en el local\tdespués de las 18 h", "100 % seguro; DROP TABLE pedidos; --",
]  # fmt: skip
