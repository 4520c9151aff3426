"""The codes that a Money of FSPIOP 1.1 may name: the document's own list, and XXX and XTS, which Mojaloop adds.

ISO 4217 has changed since the document was written, and the database knows the newer codes too. The wire does not: a payee
that checks what the switch forwards against the document would refuse the whole bulk for one of them.
"""

from typing import Final

_DOCUMENT_CODES: Final = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GGP GHS GIP GMD GNF GTQ GYD HKD HNL HRK
    HTG HUF IDR ILS IMP INR IQD IRR ISK JEP JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD
    MDL MGA MKD MMK MNT MOP MRO MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
    RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLL SOS SPL SRD STD SVC SYP SZL THB TJS TMT TND TOP TRY TTD TVD TWD TZS UAH
    UGX USD UYU UZS VEF VND VUV WST XAF XCD XDR XOF XPF YER ZAR ZMW ZWD
"""
IMPLEMENTATION_CODES: Final = ("XTS", "XXX")
CURRENCY_CODES: Final = (*_DOCUMENT_CODES.split(), *IMPLEMENTATION_CODES)
