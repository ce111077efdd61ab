"""The words of the demo catalogue, as plain data: its goods, its shops, and the parts of made-up brand names."""

from typing import NamedTuple


class Module(NamedTuple):
    """The goods of one module. `price`: the usual one. `kinds`, `variants` and `sizes`: separated by commas."""

    name: str
    price: float
    kinds: str
    variants: str
    sizes: str


class Retailer(NamedTuple):
    """A shop. `width`: how many characters its till prints on a line. `weight`: how often it is drawn."""

    name: str
    width: int
    weight: float
    own_brands: tuple[str, ...]


SNACK = "25 g, 40 g, 100 g, 150 g, 6 pk"
PACK = "100 g, 200 g, 250 g, 400 g, 500 g"
HEAVY = "400 g, 500 g, 1 kg, 1.5 kg, 2 kg"
TIN = "145 g, 200 g, 395 g, 400 g, 4 x 400 g"
BOTTLE = "250 ml, 500 ml, 750 ml, 1 l"
DRINK = "330 ml, 500 ml, 1 l, 2 l, 6 x 330 ml"
CARE = "50 ml, 75 ml, 150 ml, 250 ml, 400 ml"
COUNT = "2 s, 4 s, 6 s, 10 s, 12 s"

# fmt: off
GOODS: dict[str, dict[str, list[Module]]] = {
    "biscuits sweets & snacks": {
        "chocolate novelties": [
            Module("chocolate novelties", 1.6, "choc egg, choc bunny, choc coins, foiled choc shapes",
                   "milk, white, caramel, fondant, orange cream, popping candy", "34 g, 75 g, 5 pk, 197 g"),
        ],
        "chocolate": [
            Module("chocolate bars", 1.1, "choc bar, choc block, wafer bar",
                   "milk, dark, white, hazelnut, orange, mint, sea salt", "35 g, 45 g, 100 g, 180 g, 4 pk"),
            Module("chocolate boxes & gifts", 5.5, "truffles, assorted chocs, choc box",
                   "milk, dark, praline, liqueur, salted caramel", "120 g, 200 g, 300 g, 455 g"),
        ],
        "sugar sweets": [
            Module("sugar sweets", 1.2, "gums, jellies, chews, toffees, boiled sweets",
                   "fruit, sour, cola, strawberry, liquorice, rhubarb", "90 g, 130 g, 160 g, 190 g"),
            Module("mints & chewing gum", 0.8, "mints, gum, soft mints",
                   "spearmint, peppermint, ice, extra strong, berry", "10 s, 30 g, 46 s, 3 pk"),
        ],
        "sweet biscuits": [
            Module("sweet biscuits plain", 1.0, "digestives, shortbread, rich tea, oat cookies",
                   "original, light, ginger, butter, wholewheat", "150 g, 250 g, 300 g, 400 g"),
            Module("sweet biscuits filled & coated", 1.4, "cream sandwich, wafer rolls, coated fingers, cookies",
                   "custard, choc chip, milk choc, vanilla, lemon, jam", "120 g, 150 g, 8 pk, 200 g"),
        ],
        "crisps nuts & savoury snacks": [
            Module("potato crisps", 1.5, "crisps, ridged crisps, potato sticks",
                   "salted, cheese onion, salt vinegar, prawn, smoky bacon, chilli", SNACK),
            Module("corn & puffed snacks", 1.3, "tortilla chips, corn puffs, popcorn, lentil bites",
                   "lightly salted, cheese, sweet, hot, sour cream", SNACK),
            Module("nuts & seeds", 2.3, "cashews, peanuts, almonds, mixed nuts, sunflower seeds",
                   "salted, roasted, honey, unsalted, raisin", PACK),
        ],
    },
    "food cupboard": {
        "breakfast cereals": [
            Module("breakfast cereals", 2.4, "corn flakes, muesli, granola, wheat biscuits, rice hoops",
                   "honey, fruit, choc, original, nutty, bran", "375 g, 450 g, 500 g, 720 g, 24 s"),
            Module("porridge & oats", 2.0, "porridge oats, oat sachets, oat pot",
                   "original, syrup, apple, jumbo, berries", "55 g, 10 s, 500 g, 1 kg"),
            Module("cereal bars", 1.9, "cereal bar, oat bar, nut bar",
                   "choc, almond, yogurt, cranberry, banana, peanut", "35 g, 3 pk, 5 pk, 6 pk"),
        ],
        "sauces & condiments": [
            Module("table sauces", 1.8, "ketchup, mayo, brown sauce, mustard, salad cream",
                   "original, reduced sugar, hot, garlic, light, squeezy", "220 g, 285 g, 460 g, 570 g, 1 l"),
            Module("cooking sauces", 1.7, "pasta sauce, curry sauce, stir fry sauce, pesto",
                   "tomato basil, korma, tikka, sweet sour, garlic, madras", "120 g, 190 g, 350 g, 500 g"),
            Module("pickles & chutneys", 1.6, "gherkins, chutney, pickled onions, piccalilli",
                   "mango, sweet, baby, spiced, tangy", "280 g, 340 g, 440 g, 530 g"),
        ],
        "canned food": [
            Module("canned fish", 1.5, "tuna chunks, sardines, salmon, mackerel fillets",
                   "brine, olive oil, tomato, sunflower oil, lemon", TIN),
            Module("canned vegetables & beans", 0.8, "baked beans, sweetcorn, chick peas, chopped tomatoes",
                   "no salt, original, organic, herbs, water", TIN),
            Module("soup", 1.2, "soup, cup soup, broth", "tomato, chicken, mushroom, vegetable, oxtail, lentil", TIN),
        ],
        "pasta rice & noodles": [
            Module("pasta dry", 1.0, "spaghetti, penne, fusilli, lasagne sheets",
                   "durum, wholewheat, quick cook, egg, gluten free", HEAVY),
            Module("rice & grains", 1.9, "basmati rice, long grain rice, couscous, quinoa",
                   "easy cook, brown, golden veg, lemon, pilau", "220 g, 250 g, 500 g, 1 kg, 2 kg"),
            Module("instant noodles", 0.9, "noodles, noodle pot, ramen", "chicken, curry, beef, soy, prawn, chilli",
                   "70 g, 85 g, 90 g, 5 pk"),
        ],
        "home baking & sugar": [
            Module("flour & baking mixes", 1.3, "plain flour, bread flour, sponge mix, pancake mix",
                   "white, wholemeal, self raising, strong, vanilla", HEAVY),
            Module("sugar & sweeteners", 1.2, "granulated sugar, caster sugar, sweetener, icing sugar",
                   "white, golden, dark, cane, tablets", HEAVY),
        ],
        "spreads": [
            Module("jam & honey", 2.0, "jam, marmalade, honey, curd",
                   "strawberry, raspberry, thick cut, clear, lemon, apricot", "227 g, 340 g, 370 g, 454 g"),
            Module("nut & chocolate spreads", 2.5, "peanut butter, hazelnut spread, almond butter",
                   "smooth, crunchy, choc, no palm oil, dark", "170 g, 280 g, 350 g, 400 g, 1 kg"),
        ],
        "herbs & spices": [
            Module("herbs & spices", 1.1, "paprika, oregano, black pepper, stock cubes, sea salt",
                   "ground, smoked, dried, coarse, mixed", "18 g, 30 g, 44 g, 100 g, 8 s"),
        ],
        "cooking oils": [
            Module("cooking oils", 3.6, "olive oil, sunflower oil, rapeseed oil, oil spray",
                   "extra virgin, mild, pure, cold pressed, garlic", BOTTLE),
        ],
    },
    "chilled food": {
        "milk & cream": [
            Module("milk fresh", 1.3, "milk, filtered milk, oat drink",
                   "whole, skimmed, semi skimmed, organic, barista", "1 pt, 2 pt, 4 pt, 1 l, 2 l"),
            Module("cream fresh", 1.4, "double cream, single cream, creme fraiche, custard",
                   "fresh, half fat, thick, brandy", "150 ml, 230 ml, 300 ml, 600 ml"),
        ],
        "yogurt & chilled desserts": [
            Module("yogurt", 1.5, "yogurt, greek yogurt, fromage frais, skyr",
                   "strawberry, natural, peach, vanilla, cherry, low fat", "115 g, 4 x 120 g, 450 g, 500 g, 1 kg"),
            Module("chilled desserts", 1.8, "trifle, cheesecake, mousse, rice pudding, jelly pot",
                   "choc, lemon, strawberry, toffee, mango", "90 g, 2 pk, 4 pk, 450 g"),
        ],
        "cheese": [
            Module("cheese block & sliced", 2.6, "cheddar, gouda slices, grated mozzarella, red leicester",
                   "mature, mild, extra mature, light, smoked", PACK),
            Module("cheese soft & speciality", 2.1, "brie, feta, soft cheese, goats cheese, blue",
                   "garlic herb, light, full fat, creamy, ripe", "120 g, 150 g, 180 g, 200 g"),
        ],
        "butter & margarine": [
            Module("butter & margarine", 2.2, "butter, spreadable, margarine, baking block",
                   "salted, unsalted, lighter, olive, dairy free", PACK),
        ],
        "cooked meats & sausages": [
            Module("cooked sliced meats", 2.2, "ham, chicken slices, salami, roast beef, turkey breast",
                   "honey roast, wafer thin, smoked, peppered, breaded", "80 g, 100 g, 120 g, 200 g"),
            Module("sausages & bacon", 2.7, "pork sausages, back bacon, streaky bacon, chipolatas",
                   "smoked, thick, lincoln style, unsmoked, maple", "227 g, 300 g, 400 g, 454 g, 8 s"),
        ],
        "chilled meals": [
            Module("ready meals chilled", 3.4, "lasagne, cottage pie, chicken curry, macaroni cheese, fish pie",
                   "classic, light, family, spicy, for one", "300 g, 400 g, 450 g, 800 g"),
            Module("dips & deli salads", 1.7, "houmous, coleslaw, guacamole, potato salad, salsa",
                   "reduced fat, caramelised onion, classic, spicy, egg", "150 g, 170 g, 200 g, 300 g"),
        ],
    },
    "bakery": {
        "bread & rolls": [
            Module("bread sliced", 1.3, "bread, loaf, toastie bread", "white, wholemeal, seeded, medium, thick, malted",
                   "400 g, 600 g, 800 g"),
            Module("rolls & wraps", 1.2, "rolls, wraps, bagels, pitta, naan", "white, plain, seeded, wholemeal, garlic",
                   "2 s, 4 s, 5 s, 6 s, 8 s"),
        ],
        "cakes & pastries": [
            Module("cakes & pastries", 1.9, "cup cakes, swiss roll, croissants, doughnuts, fruit pies",
                   "choc, jam, lemon, almond, apple, iced", "2 s, 4 s, 5 s, 6 s, 300 g"),
        ],
    },
    "fruit & vegetables": {
        "fruit fresh": [
            Module("fruit fresh", 1.7, "apples, bananas, grapes, blueberries, clementines",
                   "loose, organic, ripe, seedless, small, pink", "150 g, 400 g, 500 g, 5 s, 6 s"),
        ],
        "vegetables & salad fresh": [
            Module("vegetables fresh", 1.1, "carrots, broccoli, potatoes, onions, peppers",
                   "loose, baby, organic, trimmed, red, washed", "200 g, 360 g, 500 g, 1 kg, 2 kg"),
            Module("salad & fresh herbs", 1.2, "rocket, mixed leaves, cherry tomatoes, cucumber, basil",
                   "washed, baby, crispy, vine, organic", "30 g, 80 g, 120 g, 250 g"),
        ],
    },
    "frozen food": {
        "ice cream frozen": [
            Module("ice cream tubs", 3.3, "ice cream, sorbet, gelato",
                   "vanilla, choc, strawberry, mint choc, cookie, mango", "460 ml, 500 ml, 900 ml, 2 l"),
            Module("ice cream lollies & cones", 2.4, "ice lolly, ice cones, ice sticks",
                   "fruit, vanilla, almond, choc, rocket, orange", "3 pk, 4 pk, 6 pk, 8 pk"),
        ],
        "frozen savoury": [
            Module("potato products frozen", 2.1, "oven chips, hash browns, potato wedges, waffles",
                   "crinkle, straight, spicy, home style, skin on", "600 g, 750 g, 900 g, 1.5 kg"),
            Module("pizza frozen", 2.8, "pizza, pizza slices, calzone", "margherita, pepperoni, ham, four cheese, veg",
                   "290 g, 330 g, 340 g, 2 pk"),
            Module("fish frozen", 3.5, "fish fingers, cod fillets, scampi, prawns",
                   "breaded, battered, lemon, cooked, chunky", "250 g, 280 g, 10 s, 520 g"),
        ],
        "vegetables frozen": [
            Module("vegetables frozen", 1.6, "garden peas, mixed veg, spinach, green beans",
                   "petit, steam bag, chopped, sliced, sweet", HEAVY),
        ],
    },
    "drinks non alcoholic": {
        "soft drinks": [
            Module("fizzy drinks", 1.5, "cola, lemonade, orangeade, ginger beer, tonic",
                   "diet, zero, original, cloudy, cherry, slim", DRINK),
            Module("squash & cordials", 1.8, "squash, cordial, high juice",
                   "orange, blackcurrant, no added sugar, elderflower, apple", "500 ml, 750 ml, 1 l, 1.5 l"),
            Module("energy & sports drinks", 1.4, "energy drink, isotonic, energy shot",
                   "original, tropical, sugar free, berry, citrus", "60 ml, 250 ml, 4 x 250 ml, 500 ml"),
            Module("water", 0.8, "still water, sparkling water, flavoured water",
                   "natural, spring, lemon lime, strawberry, sports cap", DRINK),
        ],
        "juices": [
            Module("juices", 1.9, "orange juice, apple juice, smoothie, cranberry drink",
                   "smooth, with bits, pressed, mango, kids", "180 ml, 3 pk, 750 ml, 1 l"),
        ],
        "hot drinks": [
            Module("tea", 2.3, "tea bags, green tea, herbal tea, loose tea",
                   "breakfast, decaf, camomile, earl grey, peppermint, strong", "20 s, 40 s, 80 s, 160 s"),
            Module("coffee", 3.8, "instant coffee, ground coffee, coffee pods, latte sachets",
                   "gold, dark roast, decaf, rich, caramel, medium", "8 s, 10 s, 95 g, 100 g, 200 g"),
        ],
    },
    "drinks alcoholic": {
        "beer & cider": [
            Module("beer", 4.9, "lager, pale ale, bitter, stout", "premium, light, golden, craft, dark",
                   "440 ml, 500 ml, 4 x 440 ml, 10 x 330 ml"),
            Module("cider", 3.2, "cider, perry", "dry, strawberry lime, medium, cloudy, dark fruit",
                   "500 ml, 4 x 440 ml, 2 l"),
        ],
        "wine": [
            Module("wine", 7.2, "merlot, chardonnay, shiraz, rose, prosecco", "reserve, dry, old vine, organic, brut",
                   "187 ml, 75 cl, 1.5 l"),
        ],
        "spirits": [
            Module("spirits", 15.5, "gin, vodka, rum, whisky, brandy", "dry, spiced, pink, blended, white",
                   "5 cl, 20 cl, 35 cl, 70 cl, 1 l"),
        ],
    },
    "household care": {
        "laundry": [
            Module("laundry detergents", 5.4, "washing powder, washing liquid, laundry caps, stain remover",
                   "bio, non bio, colour, sensitive, fresh", "15 s, 24 s, 750 ml, 1.3 kg"),
            Module("fabric conditioners", 3.0, "fabric conditioner, scent beads, tumble sheets",
                   "lavender, spring, pure, blossom, silk", "176 g, 750 ml, 1 l, 1.5 l"),
        ],
        "dishwashing": [
            Module("dishwashing", 3.1, "washing up liquid, dishwasher tabs, rinse aid",
                   "lemon, original, all in one, apple, power", "20 s, 42 s, 433 ml, 500 ml"),
        ],
        "household cleaners": [
            Module("surface cleaners", 2.1, "kitchen spray, floor cleaner, wipes, glass cleaner",
                   "antibac, lemon, bleach, citrus, pine", "40 s, 500 ml, 750 ml, 1 l"),
            Module("toilet cleaners", 1.7, "toilet gel, rim block, bleach", "ocean, thick, pine, limescale, citrus",
                   "2 pk, 40 g, 750 ml"),
        ],
        "air fresheners": [
            Module("air fresheners", 2.7, "air spray, plug refill, reed diffuser, scented candle",
                   "vanilla, linen, lavender, berry, sandalwood", "20 ml, 100 ml, 115 g, 300 ml"),
        ],
        "paper products": [
            Module("toilet tissue", 3.9, "toilet roll, toilet tissue", "white, quilted, soft, aloe, 3 ply",
                   "4 s, 6 s, 9 s, 16 s"),
            Module("kitchen roll & tissues", 2.0, "kitchen towel, facial tissues, pocket tissues",
                   "white, balsam, extra large, printed, 2 ply", "1 s, 2 s, 3 s, 8 pk"),
        ],
        "foil wraps & bags": [
            Module("foil wraps & bags", 1.8, "foil, cling film, bin liners, freezer bags",
                   "large, strong, tie handle, pedal, wide", "10 m, 20 s, 30 m, 40 s"),
        ],
    },
    "personal care": {
        "hair care": [
            Module("shampoo & conditioner", 3.2, "shampoo, conditioner, hair mask",
                   "dry hair, argan, anti dandruff, volume, coconut, colour", CARE),
            Module("hair styling", 3.4, "hairspray, hair gel, mousse, wax",
                   "firm hold, curl, strong, matt, shine", CARE),
        ],
        "oral care": [
            Module("toothpaste", 2.5, "toothpaste, kids toothpaste", "whitening, fresh mint, sensitive, enamel, total",
                   "50 ml, 75 ml, 100 ml, 125 ml"),
            Module("toothbrushes & mouthwash", 2.9, "toothbrush, mouthwash, dental floss",
                   "medium, soft, cool mint, firm, freshness", "1 s, 3 s, 50 m, 500 ml"),
        ],
        "bath & shower": [
            Module("shower gel & soap", 1.8, "shower gel, hand wash, soap bar, bubble bath",
                   "coconut, lavender, sport, milk honey, tea tree, aloe", CARE),
        ],
        "deodorants": [
            Module("deodorants", 2.4, "deo spray, roll on, deo stick", "sport, invisible, cotton, men, cool", CARE),
        ],
        "skin care": [
            Module("face care", 5.8, "day cream, face wash, serum, cleansing wipes",
                   "anti age, hydrating, spf, vitamin c, gentle", "25 s, 30 ml, 50 ml, 150 ml"),
            Module("hand & body lotion", 3.3, "body lotion, hand cream, body butter",
                   "cocoa, dry skin, rich, almond, unscented", CARE),
        ],
    },
    "baby care": {
        "nappies & wipes": [
            Module("nappies", 6.4, "nappies, nappy pants", "size 3, size 4, size 5, newborn, overnight",
                   "22 s, 28 s, 40 s, 64 s"),
            Module("baby wipes", 1.4, "baby wipes, water wipes", "sensitive, fragrance free, aloe, fresh, thick",
                   "56 s, 64 s, 4 pk, 12 pk"),
        ],
        "baby food": [
            Module("baby food & milk", 2.2, "baby puree, follow on milk, baby rice, rusks, baby pouch",
                   "carrot, apple pear, banana, stage 1, stage 2", "70 g, 90 g, 120 g, 800 g"),
        ],
    },
    "pet food & care": {
        "dog food": [
            Module("dog food", 4.2, "dog pouches, dog tins, dog biscuits, dog dry mix",
                   "beef, chicken, lamb, jelly, puppy, senior", "400 g, 6 pk, 12 pk, 2 kg"),
            Module("dog treats", 1.9, "dental sticks, dog chews, training treats",
                   "small dog, chicken, beef, large dog, rabbit", "70 g, 7 s, 28 s, 180 g"),
        ],
        "cat food": [
            Module("cat food", 3.9, "cat pouches, cat tins, cat dry mix", "tuna, salmon, chicken, kitten, gravy, jelly",
                   "85 g, 400 g, 12 pk, 950 g"),
            Module("cat treats & litter", 3.0, "cat treats, cat litter, cat milk",
                   "clumping, salmon, wood, cheese, light", "60 g, 200 ml, 5 l, 10 l"),
        ],
    },
    "general merchandise": {
        "batteries & bulbs": [
            Module("batteries & bulbs", 4.6, "batteries aa, batteries aaa, led bulb, coin cell",
                   "alkaline, rechargeable, screw, warm, long life", COUNT),
        ],
        "stationery": [
            Module("stationery", 2.1, "ball pens, notebook, sticky tape, envelopes, birthday card",
                   "blue, black, a 4, lined, clear, assorted", COUNT),
        ],
        "kitchenware": [
            Module("kitchenware", 6.5, "frying pan, mug, food box, tea towel, spatula",
                   "steel, non stick, glass, stripe, bamboo", "1 s, 2 s, 20 cm, 28 cm, 3 pk"),
        ],
    },
}

# The labels of lines that the till could not name: they say no more than food or not.
CATCH_ALL_BRAND = "receipt all"
CATCH_ALLS: dict[str, Module] = {
    "food cupboard": Module(
        "food cupboard", 1.6, "misc grocery, grocery, food item, dept 01, dept 04, misc food, sundry item, "
        "reduced food, grocery promo, provisions", "", ""),
    "general merchandise": Module(
        "general merchandise", 3.0, "misc item, sundry item, dept 04, dept 09, dept 12, non food, home misc, seasonal, "
        "clearance item, gen merch", "", ""),
}
# fmt: on
CATCH_ALL_GROUP = "{} detail unknown total"

RETAILERS = [
    Retailer("ashgrocer", 20, 16, ("ashgrocer", "ashgrocer finest pick")),
    Retailer("bellstall", 18, 14, ("bellstall", "bellstall basics")),
    Retailer("cobblecart", 22, 11, ("cobblecart", "cobblecart kitchen")),
    Retailer("dovebarrel foods", 24, 9, ("dovebarrel", "dovebarrel organics")),
    Retailer("eastpantry", 18, 8, ("eastpantry", "smart larder")),
    Retailer("fernbasket", 20, 8, ("fernbasket", "fernbasket value")),
    Retailer("gullmart", 16, 7, ("gullmart", "gullmart select")),
    Retailer("harbourly", 24, 6, ("harbourly", "captains corner")),
    Retailer("inkbarn stores", 30, 6, ("inkbarn", "inkbarn little price")),
    Retailer("juniperia", 22, 5, ("juniperia", "juniperia free from")),
    Retailer("knotwood", 68, 5, ("knotwood", "knotwood home")),
    Retailer("larkcellar", 68, 5, ("larkcellar", "plain & simple")),
]

# fmt: off
BRAND_HEADS = (
    "aldv", "arb", "bex", "blim", "brond", "cald", "chev", "clomb", "corv", "criv", "dag", "delv", "drum", "dwim",
    "elv", "emb", "fask", "fen", "fliv", "frosk", "garv", "gled", "glim", "grum", "hask", "hurl", "ibb", "isk",
    "jarv", "jolv", "kelb", "knub", "lask", "lorv", "lum", "marv", "mib", "mosk", "nask", "nim", "nolv", "obb", "orv",
    "oxl", "pask", "pelk", "plim", "prov", "quib", "rask", "rumb", "sark", "selv", "shom", "skelm", "slib", "sorv",
    "spiv", "stolv", "tamb", "tav", "teg", "thrim", "trosk", "tulv", "ulv", "umb", "varg", "vesk", "vond", "wex",
    "whib", "wimb", "yarv", "zarv", "zelk", "zim",
)
BRAND_TAILS = (
    "adine", "alto", "amore", "anby", "arrow", "atta", "bury", "caster", "combe", "ello", "embra", "endale", "erio",
    "essa", "etto", "evan", "field", "flyn", "hampton", "illo", "imber", "indle", "ingo", "isco", "itta", "laby",
    "lington", "mere", "nocka", "oak", "olino", "ompton", "ooka", "orby", "osta", "otte", "shaw", "tree", "ulio",
    "unda", "urra", "wick", "worth", "yne",
)
# fmt: on
BRAND_FIRST_WORDS = ("aunt", "captain", "dame", "little", "miss", "old", "royal", "saint")
BRAND_LAST_WORDS = ("& co", "& sons", "bros", "direct", "farm", "garden", "house", "kitchen", "lane", "mill", "valley")
RANGE_WORDS = ("classics", "crunch", "deluxe", "duo", "fresh", "gold", "kids", "lite", "max", "minis", "swirl")
