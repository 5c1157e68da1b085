"""How each class of drawn tissue is written about, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How one class is written about.

    Attributes:
        features: what one sees, as a noun phrase.
        sites: where it was found.
        hashtags: of the subspecialties, without the mark.
        diagnoses: disease terms that a colleague's answer may name; empty where there is no disease.
        abroad: language code -> noun phrase in that language.
    """

    features: tuple[str, ...]
    sites: tuple[str, ...]
    hashtags: tuple[str, ...]
    diagnoses: tuple[str, ...]
    abroad: dict[str, str]


WORDINGS: dict[str, Wording] = {
    "adenocarcinoma": Wording(
        (
            "irregular crowded glands with stratified nuclei",
            "infiltrating malignant glands in desmoplastic stroma",
            "angulated fused glands lined by atypical columnar cells",
            "back to back atypical glands",
        ),
        ("colon", "lung", "stomach", "rectum", "pancreas"),
        ("GIpath", "pulmpath", "surgpath"),
        ("adenocarcinoma", "moderately differentiated adenocarcinoma"),
        {
            "es": "adenocarcinoma infiltrante con glándulas irregulares",
            "pt": "adenocarcinoma invasivo com glândulas irregulares",
            "fr": "adénocarcinome infiltrant avec des glandes irrégulières",
            "de": "infiltrierendes Adenokarzinom mit unregelmäßigen Drüsen",
            "tr": "düzensiz bezler yapan infiltratif adenokarsinom",
        },
    ),
    "squamous cell carcinoma": Wording(
        (
            "nests of atypical squamous cells with keratin pearls",
            "whorled keratin pearls and intercellular bridges",
            "islands of keratinizing malignant squamous cells",
            "concentric keratinization within tumor nests",
        ),
        ("tongue", "skin", "larynx", "lung", "oesophagus", "cervix"),
        ("ENTpath", "oralpath", "dermpath", "pulmpath"),
        ("squamous cell carcinoma", "well differentiated squamous cell carcinoma"),
        {
            "es": "carcinoma epidermoide con perlas de queratina",
            "pt": "carcinoma espinocelular com pérolas de queratina",
            "fr": "carcinome épidermoïde avec des perles de kératine",
            "de": "verhornendes Plattenepithelkarzinom mit Hornperlen",
            "tr": "keratin incileri içeren skuamöz hücreli karsinom",
        },
    ),
    "mucinous carcinoma": Wording(
        (
            "clusters of tumor cells floating in lakes of mucin",
            "pools of extracellular mucin with malignant epithelium",
            "tumor islands suspended in abundant pale mucin",
            "mucin lakes separated by thin fibrous septa",
        ),
        ("breast", "colon", "appendix", "ovary", "skin"),
        ("breastpath", "GIpath", "gynpath"),
        ("mucinous carcinoma", "mucinous adenocarcinoma"),
        {
            "es": "carcinoma mucinoso con lagos de mucina",
            "pt": "carcinoma mucinoso com lagos de mucina",
            "fr": "carcinome mucineux avec des lacs de mucine",
            "de": "muzinöses Karzinom mit Schleimseen",
            "tr": "müsin gölleri içinde müsinöz karsinom",
        },
    ),
    "adipose tissue": Wording(
        (
            "mature adipocytes with thin fibrous septa",
            "lobules of mature fat with small peripheral nuclei",
            "uniform fat cells without atypia",
            "univacuolated adipocytes of even size",
        ),
        ("subcutis of the back", "thigh", "shoulder", "omentum", "breast"),
        ("BSTpath", "dermpath", "surgpath"),
        ("lipoma",),
        {
            "es": "tejido adiposo maduro, compatible con lipoma",
            "pt": "tecido adiposo maduro, compatível com lipoma",
            "fr": "tissu adipeux mature, compatible avec un lipome",
            "de": "reifes Fettgewebe, vereinbar mit einem Lipom",
            "tr": "olgun yağ dokusu, lipom ile uyumlu",
        },
    ),
    "lymphoid infiltrate": Wording(
        (
            "sheets of small round lymphocytes",
            "dense monotonous lymphocytic inflammation",
            "small blue cells with scant cytoplasm, mature lymphocytes",
            "diffuse lymphoid cells with clumped chromatin",
        ),
        ("lymph node", "tonsil", "thyroid", "salivary gland", "stomach"),
        ("hemepath", "surgpath", "ENTpath"),
        ("chronic inflammation", "chronic lymphadenitis"),
        {
            "es": "infiltrado linfoide denso de linfocitos pequeños",
            "pt": "infiltrado linfoide denso de pequenos linfócitos",
            "fr": "infiltrat lymphoïde dense de petits lymphocytes",
            "de": "dichtes lymphatisches Infiltrat aus kleinen Lymphozyten",
            "tr": "küçük lenfositlerden oluşan yoğun lenfoid infiltrat",
        },
    ),
    "necrosis": Wording(
        (
            "granular eosinophilic debris with ghost cells",
            "karyorrhexis and nuclear dust without viable tissue",
            "amorphous necrotic material",
            "loss of nuclei and structure with nuclear debris",
        ),
        ("lymph node", "kidney", "lung", "liver metastasis", "soft tissue"),
        ("surgpath", "pulmpath", "BSTpath"),
        ("coagulative necrosis", "necrosis"),
        {
            "es": "necrosis extensa con restos celulares y cariorrexis",
            "pt": "necrose extensa com restos celulares e cariorrexe",
            "fr": "nécrose étendue avec des débris cellulaires",
            "de": "ausgedehnte Nekrose mit Kerntrümmern",
            "tr": "nükleer debris içeren yaygın nekroz",
        },
    ),
    "smooth muscle": Wording(
        (
            "intersecting fascicles of spindle cells with cigar-shaped nuclei",
            "wavy bundles of eosinophilic smooth muscle fibres",
            "bland spindle cells in parallel bundles",
            "blunt-ended elongated nuclei in fascicles",
        ),
        ("uterus", "stomach wall", "bladder wall", "skin"),
        ("gynpath", "BSTpath", "GUpath"),
        ("leiomyoma",),
        {
            "es": "músculo liso en fascículos, compatible con leiomioma",
            "pt": "músculo liso em fascículos, compatível com leiomioma",
            "fr": "faisceaux de muscle lisse, compatible avec un léiomyome",
            "de": "Bündel glatter Muskulatur, vereinbar mit einem Leiomyom",
            "tr": "düz kas demetleri, leiomyom ile uyumlu",
        },
    ),
    "benign glands": Wording(
        (
            "evenly spaced round crypts with goblet cells",
            "regular glands with basal nuclei",
            "test tube crypts, preserved architecture",
            "round glands with a single row of small nuclei",
        ),
        ("colon", "rectum", "sigmoid", "caecum"),
        ("GIpath", "surgpath"),
        (),
        {
            "es": "glándulas benignas regulares con células caliciformes",
            "pt": "glândulas benignas regulares com células caliciformes",
            "fr": "glandes bénignes régulières avec des cellules caliciformes",
            "de": "regelmäßige gutartige Krypten mit Becherzellen",
            "tr": "goblet hücreleri içeren düzenli iyi huylu bezler",
        },
    ),
    "squamous epithelium": Wording(
        (
            "orderly maturation from the basal layer to the surface",
            "basal palisade, prickle cells and a flat surface",
            "stratified squamous mucosa with papillae",
            "layered squamous cells without dysplasia",
        ),
        ("oesophagus", "cervix", "oral mucosa", "vagina", "skin"),
        ("gynpath", "ENTpath", "dermpath"),
        (),
        {
            "es": "epitelio escamoso normal con maduración ordenada",
            "pt": "epitélio escamoso normal com maturação ordenada",
            "fr": "épithélium malpighien normal avec une maturation ordonnée",
            "de": "normales Plattenepithel mit geordneter Ausreifung",
            "tr": "düzenli olgunlaşma gösteren normal skuamöz epitel",
        },
    ),
}
