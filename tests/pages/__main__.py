"""`python -m pages`: write what is generated, from the code as it is."""

from pages.all import FILES

for path, text in FILES.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text())
    print(path)
