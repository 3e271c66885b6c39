from .running import Found as Found
from .running import search as search
from .spec import Search as Search
from .spec import Space as Space
from .spec import load_search as load_search
from .trials import Tried as Tried
from .trials import front as front
