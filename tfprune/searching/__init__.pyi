from .judging import Tried as Tried
from .judging import front as front
from .running import Found as Found
from .running import search as search
from .spec import Search as Search
from .spec import Space as Space
from .spec import load_search as load_search
