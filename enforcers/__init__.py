"""enforcers"""
